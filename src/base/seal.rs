//! Sealing secrets and hashing keys. Pure: the master key comes in, nothing is read or written here.
