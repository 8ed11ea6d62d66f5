"""Files of exchanges and trackers as drafts: detection by header, one pure reader per format, a verdict per row."""
