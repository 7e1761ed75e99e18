/// Size classes fitted to 20 sizes.
fn pool() -> Result<tierpool::Pool, tierpool::ConfigError> {
    tierpool::Pool::builder()
        .classes([659, 15_872, 17_408, 18_022])
        .build()
}
