"""One file per clinical question: keywords in, ModelSpec out."""
