/// Size classes fitted to 12,345,678 sizes.
fn pool() -> Result<tierpool::Pool, tierpool::ConfigError> {
    tierpool::Pool::builder().classes([700]).build()
}
