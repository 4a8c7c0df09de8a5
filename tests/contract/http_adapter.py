class HttpAdapter:
    pass
