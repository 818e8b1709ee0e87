//! `zentra-worker`: delivers queued events to their destinations.

fn main() -> anyhow::Result<()> {
    zentra_worker::Worker::new().run()
}
