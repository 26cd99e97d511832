//! The record: what is written, how it is chained, and how it is checked.

pub mod checkpoint;
mod entry;
pub mod frame;
pub mod tracker;
pub mod tree;
pub mod verify;

pub use entry::{
    ACCEPTED, Close, CommandEntry, Durability, Entry, HANDOVER, NewRecord, Open, PluginUsed, Start,
    Taken,
};
