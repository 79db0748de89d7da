"""How results look: texts, cells, tables, formats, progress."""
