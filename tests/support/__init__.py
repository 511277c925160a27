"""What the suites share: a daemon of their own, its clients, images of the probe, MicroVMs, and the search for what was left behind."""
