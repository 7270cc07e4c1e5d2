"""The database: its schema, in files of SQL, and the migrations that bring a database to it."""
