"""The status page: what runs, for people, made on the server and with nothing from outside.

`board` has its parts and `page` shows them; each part is a file: history and charts, projects,
errors and fixes, jobs, trying.
"""
