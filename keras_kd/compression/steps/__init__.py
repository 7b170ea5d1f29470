"""Several compressions one after the other, each followed by distillation."""
