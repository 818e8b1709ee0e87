//! One harness that starts real services, and every test that crosses a process.
