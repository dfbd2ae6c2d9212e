//! What will be done, in order, as data.
