"""The commands of a glance-api host, one module for each; `setup.cfg` lists them."""
