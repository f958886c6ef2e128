"""Every path, file format and atomic step on the shared folder."""
