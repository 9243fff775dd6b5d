"""The main job, shown: a real crew, offline, its events delivered and verified."""
