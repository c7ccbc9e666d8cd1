//! Frames through the loaded program: verdict, whole output bytes, counters
//! and map entries.

mod ends;
mod new_flow;
mod other;
mod scene;
mod walk;
