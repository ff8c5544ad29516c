"""For whoever writes a plug-in: contract suites, fakes and emulators."""
