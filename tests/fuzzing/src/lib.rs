//! What the fuzz targets of all crates have in common (docs/testing.md). For tests only.
//!
//! A target is an ordinary test that calls [`fuzz!`] with valid inputs and a check. Under `cargo test` the check is run on the
//! committed corpus and on new inputs for a few seconds; `just fuzz` runs it for longer, also guided by coverage.

mod damage;
mod memory;
mod target;

pub use bolero;
pub use memory::{Counting, peak_of};
pub use target::{Case, LONGEST, TIME, Target};

/// Runs a check on the target's corpus and on new inputs: bytes out of nowhere, and damaged ones of the `samples`, which are valid.
///
/// The check gets a [`Case`] and panics if something is wrong. Its corpus stands in `__fuzz__` beside the file, under the test's
/// path.
#[macro_export]
macro_rules! fuzz {
    ($samples:expr, $check:expr $(,)?) => {{
        let name = $crate::bolero::TargetLocation {
            package_name: env!("CARGO_PKG_NAME"),
            manifest_dir: env!("CARGO_MANIFEST_DIR"),
            module_path: module_path!(),
            file: file!(),
            line: line!(),
            item_path: $crate::bolero::__item_path__!(),
            test_name: None,
        };
        let mut target = $crate::Target::new(&name, $samples, $check);
        $crate::bolero::check!()
            .with_test_time($crate::TIME)
            .with_max_len($crate::LONGEST)
            .for_each(move |input: &[u8]| target.run(input));
    }};
}
