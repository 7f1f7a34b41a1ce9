//! Addresses → names. The only importer of blazesym.
