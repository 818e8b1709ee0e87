//! The verified entrance.
