"""Files in the folders of this host's file stores."""
