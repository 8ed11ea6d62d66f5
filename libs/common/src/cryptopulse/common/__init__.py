"""What every CryptoPulse service needs and none owns."""
