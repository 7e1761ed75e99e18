/// Size classes calibrated to 1,000 sizes.
fn pool() -> Result<tierpool::Pool, tierpool::ConfigError> {
    tierpool::Pool::builder().max_size(16_384).build()
}
