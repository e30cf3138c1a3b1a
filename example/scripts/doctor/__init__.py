"""Walk from the app to the dashboard, hop by hop, and name the first one that is broken.

``model`` has the words, ``findings`` what can be wrong, ``checks`` one small function a hop, and ``context`` the
evidence that they share.
"""
