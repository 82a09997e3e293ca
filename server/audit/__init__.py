"""The audit log: who has changed what, and when.

The rule of this folder: an event is added and never changed. Each one has a hash over itself and the hash before, so
a row that somebody changes, removes or inserts later is found."""
