//! Verbs of who builds the images that containers are made of. They run in the caller's own process.

pub mod list_images;
pub mod make_base_image;
pub mod make_dev_image;
pub mod publish_image;
pub mod publish_opt;
pub mod rebuild_images;
