//! Claims, attempts, settles.
