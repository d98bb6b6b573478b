//! What survives a restart: one face, an embedded engine behind it (and the seam for another).
