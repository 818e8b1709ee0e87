//! `zentra-worker`: delivers queued events to their destinations.

/// Quicker than the system's where many threads allocate small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    zentra_telemetry::exit(zentra_worker::Worker::new().run())
}
