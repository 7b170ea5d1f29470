"""Several compressions one after the other, each taught by the teacher."""
