//! `kvd dev` as its user has it: what it prints, what can be pasted, and that nothing is left of it.

mod running;

mod by_hand;
mod keeper;
mod keeps;
mod left;
mod refused;
mod serves;
mod verify;
