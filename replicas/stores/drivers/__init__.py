"""Every other kind of store, through the driver that Glance itself uses."""
