//! The command line: arguments, and what each command does to the store.
