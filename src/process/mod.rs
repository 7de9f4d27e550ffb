//! The command line's back end: master, signals, reload, binary upgrade.
