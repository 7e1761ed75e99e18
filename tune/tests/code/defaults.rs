/// The default size classes, best for 1 size.
fn pool() -> Result<tierpool::Pool, tierpool::ConfigError> {
    tierpool::Pool::builder().build()
}
