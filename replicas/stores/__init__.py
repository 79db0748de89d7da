"""Where image bytes are: a folder for each kind of place, its reader, writer and listing together."""
