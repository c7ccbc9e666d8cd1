//! Frames through the loaded program: verdict, whole output bytes, counters
//! and map entries.

mod ends;
mod events;
mod expiry;
mod handshake;
mod kill;
mod new_flow;
mod other;
mod redispatch;
mod reuse;
mod ring;
mod scene;
mod silence;
mod sticky;
mod walk;
