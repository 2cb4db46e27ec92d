"""The collapsed Gaussian engine: arrays in, arrays out, whatever the number of sessions."""
