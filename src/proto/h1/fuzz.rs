//! Laws of this machine, for property tests and fuzz targets.
