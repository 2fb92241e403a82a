"""What survives when things go wrong: crashes, signals, full disks, damaged files, refused starts."""
