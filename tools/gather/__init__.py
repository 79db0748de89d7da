"""What `replica check` asks this machine before it judges (`glance_replicas.check`)."""
