"""From any table to checked arrays."""
