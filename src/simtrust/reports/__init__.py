"""Reports: pictures of logs and of what was learnt from them."""
