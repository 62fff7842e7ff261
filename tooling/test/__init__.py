"""What tests need around them."""
