//! Which URL goes to whom.
