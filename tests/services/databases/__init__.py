"""PostgreSQL, MariaDB, Galera, and Glance's tables in them."""
