//! Pure decisions: which targets a request may go to, and what a failure means.
