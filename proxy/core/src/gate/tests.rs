//! Scripts on a manual clock, and properties over every interleaving.

mod close;
mod hold;
mod interleavings;
mod judge;
mod world;
