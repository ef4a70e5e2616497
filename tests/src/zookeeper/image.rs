//! Which ZooKeeper image to run, and building one where none can be pulled.

use std::env;
use std::process::Command;
use std::sync::OnceLock;

use super::docker::{docker, run};
use super::reserve::Lock;
use super::{IMAGE_VARIABLE, ZooKeeperError};

/// The official image, used when somebody has pulled it.
const OFFICIAL: &str = "zookeeper:3.9";
/// The script that builds an image from Debian's packages, and prints its tag.
const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/zookeeper-image/build");

/// The image to run. It is there, unless `KV_TEST_ZOOKEEPER_IMAGE` names one that Docker will have to pull.
pub(super) fn resolve() -> Result<String, ZooKeeperError> {
    static RESOLVED: OnceLock<String> = OnceLock::new();
    if let Some(image) = RESOLVED.get() {
        return Ok(image.clone());
    }
    let image = match env::var(IMAGE_VARIABLE) {
        Ok(image) if !image.is_empty() => image,
        _ if docker(&["image", "inspect", OFFICIAL]).is_ok() => OFFICIAL.to_owned(),
        _ => build()?,
    };
    Ok(RESOLVED.get_or_init(|| image).clone())
}

/// Builds the image; tests that start at the same time wait for the first and then find it built.
fn build() -> Result<String, ZooKeeperError> {
    let _building = Lock::acquire("image")?;
    run(&mut Command::new(BUILD))
}
