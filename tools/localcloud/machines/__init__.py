"""Real machines and their disks, by systemd-nspawn and overlayfs. Knows nothing of AWS."""
