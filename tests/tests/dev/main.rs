//! `kvd dev` as its user has it: what it prints, what can be pasted, and that nothing is left of it.

mod running;

mod keeps;
mod refused;
mod serves;
